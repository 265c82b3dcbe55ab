-- Days that claim to have been known before their last minute was over.
select *
from {{ ref('fct_daily_bars') }}
where epoch_ns(ts_known) < epoch_ns(ts_last_bar) + 60000000000
