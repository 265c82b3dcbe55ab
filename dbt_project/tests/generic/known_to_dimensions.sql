{% test known_to_dimensions(model, dimensions) %}
-- Names that their dimension, whose key is called as the column is, does not have; a null is no name.
{%- for column, dimension in dimensions.items() %}
select '{{ column }}' as column_name, {{ column }} as unknown
from {{ model }}
where {{ column }} is not null and {{ column }} not in (select {{ column }} from {{ dimension }})
{{ 'union all' if not loop.last }}
{%- endfor %}
{% endtest %}
