{# An open date lies in parts, `<symbol>.<first id>-<last id>.parquet`, for a moment beside its compacted file. #}
{% macro is_open_part(file) -%}
regexp_matches({{ file }}, '\.[0-9]+-[0-9]+\.parquet$')
{%- endmacro %}
