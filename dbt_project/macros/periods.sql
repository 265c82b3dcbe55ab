{# How long scorecards look, to join with: the day itself, the week from its Monday, the month from its first. #}
{% macro periods() -%}
(values ('day'), ('week'), ('month')) as periods (period)
{%- endmacro %}
