"""What keeps commands of the tests from asking anybody outside this machine."""

NOBODY_ASKED = {"QP_FEEDS__CBOE__VIX1D_URL": "", "QP_FEEDS__VIX1D__YAHOO_URL": ""}
