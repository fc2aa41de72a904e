# What comes late tells that a leak began earlier than it was noticed: the alert stays as it was, with a note beside it.
rule         gas-ch4-void
0..90/10     well/ch4_lel 1
600..630/10  well/ch4_lel 60
alert        gas-ch4-void well red 630 open
ack          gas-ch4-void well li
300..590/10  well/ch4_lel 60                # late
alert        gas-ch4-void well red 630 open acked=li revised=330
640..700/10  well/ch4_lel 1
alert        gas-ch4-void well red 630 700 acked=li revised=330
