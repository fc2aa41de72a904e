"""``citynet bench gateway``: what a gateway takes in, sends, keeps and needs, measured on a real process beside a baseline."""
