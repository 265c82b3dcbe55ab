with told as (

    select strategy, trading_date, decision_id, null as order_id
    from {{ ref('stg_decisions') }}

    union all

    select strategy, trading_date, null, order_id
    from {{ ref('fct_order_cost') }}

)

select
    strategy,
    min(trading_date) as first_date,
    max(trading_date) as last_date,
    count(decision_id) as decisions,
    count(order_id) as orders
from told
where strategy is not null
group by strategy
order by strategy
