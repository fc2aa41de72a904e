# A leak from the first reading on: acknowledged, sent twice, the worker killed while it lasts, cleared after its delay.
rule        gas-ch4-void
0..20/10    well/ch4_lel 60
no alerts                                   # its on-delay is 30 s
kill                                        # what is pending survives
30          well/ch4_lel 60
alert       gas-ch4-void well red 30 open
again                                       # a repetition changes nothing
ack         gas-ch4-void well li
restart
40..90/10   well/ch4_lel 1
alert       gas-ch4-void well red 30 open acked=li
100         well/ch4_lel 1
alert       gas-ch4-void well red 30 100 acked=li
