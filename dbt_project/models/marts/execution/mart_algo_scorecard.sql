{%- set cell = 'dimension, period, period_start' %}

with members as (

    select
        unnest([
            {'dimension': 'algo', 'member': algo},
            {'dimension': 'broker', 'member': broker},
            {'dimension': 'strategy', 'member': strategy}
        ], recursive := true),
        * exclude (algo, broker, strategy),
        quantity * coalesce(arrival_price, decision_price) as ordered_notional,
        delay_bps + trading_bps + opportunity_bps + fees_bps is not null as has_parts,
        case when has_parts then decided_notional end as parts_notional
    from {{ ref('fct_order_cost') }}

),

orders as (

    select *, date_trunc(period, trading_date)::date as period_start
    from members
    cross join {{ periods() }}

)

select
    dimension,
    period,
    period_start,
    member,
    count(*) as orders,
    count(distinct symbol) as symbols,
    count(distinct trading_date) as days,
    sum(notional) as notional,
    sum(notional) / nullif(sum(sum(notional)) over family, 0) as notional_share,
    count(*) / sum(count(*)) over family as order_share,
    {{ weighted_mean('filled_quantity / quantity', 'ordered_notional') }} as fill_rate,
    {%- for cost in ['decision_cost', 'arrival_cost', 'vwap_cost', 'twap_cost', 'excess_cost'] %}
    {{ weighted_mean(cost ~ '_bps', 'notional') }} as {{ cost }}_weighted_bps,
    avg({{ cost }}_bps) as {{ cost }}_mean_bps,
    count({{ cost }}_bps) as {{ cost }}_orders,
    {%- endfor %}
    {%- for part in ['delay', 'trading', 'opportunity', 'fees', 'shortfall'] %}
    {{ weighted_mean(part ~ '_bps', 'parts_notional') }} as {{ part }}_weighted_bps,
    {%- endfor %}
    avg(shortfall_bps) filter (has_parts) as shortfall_mean_bps,
    count(*) filter (has_parts) as shortfall_orders,
    max(ts_known) as ts_known
from orders
group by {{ cell }}, member
-- In order, so that sums of reals come out the same each time.
window family as (
    partition by {{ cell }}
    order by member
    rows between unbounded preceding and unbounded following
)
order by {{ cell }}, member
