-- Orders whose figures contradict their status, their fills or their times; a null fails where a figure is due.
select *
from {{ ref('fct_order_cost') }}
where not coalesce(
    (
        status = 'ok'
        or coalesce(
            decision_cost_bps, arrival_cost_bps, vwap_cost_bps, twap_cost_bps, open_cost_bps, close_cost_bps,
            prev_close_cost_bps, pwp_05_cost_bps, pwp_10_cost_bps, pwp_20_cost_bps, pwp_30_cost_bps,
            delay_bps, trading_bps, opportunity_bps, fees_bps, shortfall_bps
        ) is null
    )
    and (status <> 'ok' or (fill_count > 0) = (notional > 0))
    and ts_known >= coalesce(ts_done, ts_event),
    false
)
