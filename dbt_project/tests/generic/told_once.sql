{% test told_once(model, key, told=[]) %}
-- Keys that are there twice, and rows without their key or without what every row has.
select {{ key }}
from {{ model }}
group by {{ key }}
having count(*) > 1 or {{ key }} is null{% for column in told %} or count({{ column }}) < count(*){% endfor %}
{% endtest %}
