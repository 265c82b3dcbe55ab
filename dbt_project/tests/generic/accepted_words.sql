{% test accepted_words(model, words) %}
-- A null is no word; whether one may be there is for no_nulls to say.
select {{ words | join(', ') }}
from {{ model }}
where {% for column, accepted in words.items() -%}
{{ 'or ' if not loop.first }}{{ column }}::varchar not in ('{{ accepted | join("', '") }}')
{% endfor %}
{% endtest %}
