select *
from (
{{ lake_table(source('execution', 'orders'), {
    'order_id': 'varchar',
    'parent_order_id': 'varchar',
    'decision_id': 'varchar',
    'revision': 'bigint',
    'ts_event': 'timestamptz_ns',
    'ts_recv': 'timestamptz_ns',
    'symbol': 'varchar',
    'side': 'tinyint',
    'quantity': 'double',
    'algo': 'varchar',
    'broker': 'varchar',
    'limit_price': 'double',
    'ts_done': 'timestamptz_ns',
    'status': 'varchar',
    'cancel_price': 'double',
}) }}
)
qualify row_number() over (partition by order_id order by revision desc, ts_recv, ts_event) = 1
