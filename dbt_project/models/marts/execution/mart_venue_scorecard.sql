{%- set cell = 'period, period_start' %}
{%- set figures = ['quoted_spread', 'effective_spread', 'realised_spread_5s', 'markout_50ms', 'markout_1s', 'markout_5s',
                   'markout_15s', 'markout_1m', 'markout_5m', 'markout_close'] %}

with fills as (

    select *, date_trunc(period, trading_date)::date as period_start
    from {{ ref('fct_fill_markout') }}
    cross join {{ periods() }}

)

select
    period,
    period_start,
    venue,
    count(*) as fills,
    count(distinct parent_order_id) as orders,
    count(distinct symbol) as symbols,
    count(distinct trading_date) as days,
    sum(notional) as notional,
    sum(notional) / nullif(sum(sum(notional)) over family, 0) as notional_share,
    count(*) / sum(count(*)) over family as fill_share,
    {{ weighted_mean("(liquidity = 'maker')::int", 'notional') }} as maker_share,
    {{ weighted_mean('fees / notional * 1e4', 'notional') }} as fee_bps,
    sum(effective_spread_bps * notional) filter (quoted_spread_bps is not null)
        / nullif(sum(quoted_spread_bps * notional) filter (effective_spread_bps is not null), 0) as e_over_q,
    {{ weighted_mean('price_improvement_amount / notional * 1e4', 'notional') }} as price_improvement_bps,
    {%- for figure in figures %}
    {{ weighted_mean(figure ~ '_bps', 'notional') }} as {{ figure }}_weighted_bps,
    avg({{ figure }}_bps) as {{ figure }}_mean_bps,
    count({{ figure }}_bps) as {{ figure }}_fills,
    {%- endfor %}
    max(ts_known) as ts_known
from fills
group by {{ cell }}, venue
-- In order, so that sums of reals come out the same each time.
window family as (
    partition by {{ cell }}
    order by venue
    rows between unbounded preceding and unbounded following
)
order by {{ cell }}, venue
