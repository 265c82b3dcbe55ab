{% test shares_sum_to_one(model, shares, within) %}
-- Where no cell has a share there is nothing to sum up.
select {{ within | join(', ') }}{% for share in shares %}, sum({{ share }}) as {{ share }}{% endfor %}
from {{ model }}
group by {{ within | join(', ') }}
having {% for share in shares %}{{ 'or ' if not loop.first }}abs(sum({{ share }}) - 1) > 1e-9 {% endfor %}
{% endtest %}
