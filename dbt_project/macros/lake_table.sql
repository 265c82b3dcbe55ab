{#
    Every closed symbol-day of a lake table, with its folder as `trading_date`. No rows where nothing is on disk yet.

    table:    a source of the lake: its schema and name are the table's folders
    columns:  name -> DuckDB type, in order: what the contract in quant_platform/contracts declares
#}
{% macro lake_table(table, columns) -%}
{%- set is_on_disk = execute and run_query("select 1 from glob('" ~ lake_files(table) ~ "') limit 1") | length > 0 -%}
select
{%- for name, type in columns.items() %}
    {% if is_on_disk %}"{{ name }}"{% else %}null{% endif %}::{{ type }} as "{{ name }}",
{%- endfor %}
    {% if is_on_disk %}"date"{% else %}null::date{% endif %} as trading_date
{%- if is_on_disk %}
from read_parquet('{{ lake_files(table) }}', hive_partitioning = true, hive_types = {'date': date})
where not {{ is_open_part('filename') }}
{%- else %}
where false
{%- endif %}
{%- endmacro %}
