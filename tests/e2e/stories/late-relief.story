# Two readings beyond the limit, half a minute apart; what lay between comes late and was harmless.
rule         gas-ch4-void
0            well/ch4_lel 1
100          well/ch4_lel 60
140          well/ch4_lel 60
alert        gas-ch4-void well red 140 open
150..300/10  well/ch4_lel 1
alert        gas-ch4-void well red 140 210
110..130/10  well/ch4_lel 1                 # late
alert        gas-ch4-void well red 140 210 withdrawn
