{% test parts_sum_to_total(model, parts, total, tolerance) %}
-- A part that is null leaves the row out.
select {{ parts | join(', ') }}, {{ total }}
from {{ model }}
where {{ parts | join(' + ') }} is not null
    and not coalesce(abs({{ parts | join(' + ') }} - {{ total }}) <= {{ tolerance }}, false)
{% endtest %}
