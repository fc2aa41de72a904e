"""What needs more than one series: readings of several put in one order of time, and what is made of them."""
