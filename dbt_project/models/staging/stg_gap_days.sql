select
    url_decode(parse_filename(file, true)) as symbol,
    regexp_extract(file, '/date=([0-9-]+)/[^/]+$', 1)::date as trading_date
from glob('{{ lake_files(source('market', 'gaps')) }}')
where not {{ is_open_part('file') }}
