-- Fills whose spreads contradict the quote that they met, or that are known before they were made.
select *
from {{ ref('fct_fill_markout') }}
where not coalesce(
    (status in ('ok', 'locked') or coalesce(quoted_spread_bps, effective_spread_bps, e_over_q) is null)
    and (status not in ('ok', 'locked') or (notional > 0 and effective_spread_bps is not null))
    and coalesce(quoted_spread_bps, 0) >= 0
    and ts_known >= ts_event,
    false
)
