{{ lake_table(source('market', 'gaps'), {
    'symbol': 'varchar',
    'first_id': 'bigint',
    'last_id': 'bigint',
    'missing': 'bigint',
    'ts_start': 'timestamptz_ns',
    'ts_end': 'timestamptz_ns',
    'status': 'varchar',
    'filled_by': 'varchar',
    'ts_known': 'timestamptz_ns',
}) }}
