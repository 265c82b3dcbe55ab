select *
from (
{{ lake_table(source('execution', 'decisions'), {
    'decision_id': 'varchar',
    'revision': 'bigint',
    'ts_event': 'timestamptz_ns',
    'ts_recv': 'timestamptz_ns',
    'strategy': 'varchar',
    'symbol': 'varchar',
    'side': 'tinyint',
    'quantity': 'double',
    'price': 'double',
    'expected_return_bps': 'double',
    'expected_cost_bps': 'double',
    'cost_model_id': 'varchar',
    'signal_strength': 'double',
    'confidence': 'double',
    'horizon_s': 'double',
    'risk_score': 'double',
    'risk_limit_used': 'double',
}) }}
)
qualify row_number() over (partition by decision_id order by revision desc, ts_recv, ts_event) = 1
