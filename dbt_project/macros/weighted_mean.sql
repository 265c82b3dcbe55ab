{# Mean of a figure over the rows that have it, each with its weight; null where those weigh nothing. #}
{% macro weighted_mean(figure, weight) -%}
sum(({{ figure }}) * {{ weight }}) / nullif(sum({{ weight }}) filter (({{ figure }}) is not null), 0)
{%- endmacro %}
