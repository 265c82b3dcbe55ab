select *
from (
{{ lake_table(source('execution', 'fills'), {
    'fill_id': 'varchar',
    'order_id': 'varchar',
    'revision': 'bigint',
    'ts_event': 'timestamptz_ns',
    'ts_recv': 'timestamptz_ns',
    'symbol': 'varchar',
    'side': 'tinyint',
    'price': 'double',
    'quantity': 'double',
    'venue': 'varchar',
    'fee': 'double',
    'fee_currency': 'varchar',
    'fee_rate': 'double',
    'liquidity': 'varchar',
}) }}
)
qualify row_number() over (partition by fill_id order by revision desc, ts_recv, ts_event) = 1
