# An override comes and goes while a leak is on: what the rule says anew keeps the acknowledgement; a mistake changes nothing.
rule        gas-ch4-void
0..30/10    well/ch4_lel 60
alert       gas-ch4-void well red 30 open version=1
ack         gas-ch4-void well li
refused     gas-ch4-void unit = "%LEL"; levels = { red = 15.0 }
40          well/ch4_lel 60
alert       gas-ch4-void well red 30 open acked=li version=1
override    gas-ch4-void contacts = ["96777"]
50          well/ch4_lel 60
alert       gas-ch4-void well red 30 open acked=li version=1    # words changed, the alert goes on
override    gas-ch4-void unit = "%LEL"; levels = { red = 55.0 }
60..80/10   well/ch4_lel 60
alert       gas-ch4-void well red 30 open acked=li version=1
90          well/ch4_lel 60                                     # its on-delay under the new limit
alert       gas-ch4-void well red 30 90 acked=li version=1
alert       gas-ch4-void well red 90 open acked=li version=+
100..160/10 well/ch4_lel 1
alert       gas-ch4-void well red 30 90 acked=li version=1
alert       gas-ch4-void well red 90 160 acked=li version=+
