{# The glob of a lake table's files; `[` and quotes in the lake's own path stand for themselves. #}
{% macro lake_files(table) -%}
{{ env_var('QP_LAKE_PATH', '../var/lake') | replace('[', '[[]') | replace("'", "''") }}/{{ table.schema }}/{{ table.identifier }}/date=*/*.parquet
{%- endmacro %}
