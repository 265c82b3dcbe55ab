select
    venue,
    min(trading_date) as first_date,
    max(trading_date) as last_date,
    count(*) as fills
from {{ ref('fct_fill_markout') }}
where venue is not null
group by venue
order by venue
