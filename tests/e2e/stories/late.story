# A device comes back and sends first what is, then what was: today's siren is silent, the record is complete.
rule         gas-ch4-void
0..90/10     well/ch4_lel 1
1000..1100/10 well/ch4_lel 1
no alerts
200..400/10  well/ch4_lel 60                # late
alert        gas-ch4-void well red 230 1060 hindsight
kill
200..400/10  well/ch4_lel 60                # the same once more, under other numbers
410..500/10  well/ch4_lel 60                # more of it: nothing is raised twice
1110..1200/10 well/ch4_lel 1
alert        gas-ch4-void well red 230 1060 hindsight
