select
    algo,
    min(trading_date) as first_date,
    max(trading_date) as last_date,
    count(*) as orders
from {{ ref('fct_order_cost') }}
where algo is not null
group by algo
order by algo
