"""Telling people of alerts without Prometheus: a push to Alertmanager's API, and signed webhooks.

    notices        what there is to tell, from the models as they stand: pure
    board          what a receiver was told and what waits for it: bounded, the newest state wins
    alertmanager   a notice as Alertmanager's API v2 takes it
    webhook        a notice as a signed message
    sender         the thread of one receiver: tries again, and counts
    notifier       all receivers; what the loop knows

The loop says what stands, over and over, and never waits. What ends is told as ended and never as healthy.
"""
