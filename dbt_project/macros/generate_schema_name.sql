{# A model's schema is what dbt_project.yml says, without dbt's prefix: `marts`, `staging`. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ custom_schema_name or target.schema }}
{%- endmacro %}
