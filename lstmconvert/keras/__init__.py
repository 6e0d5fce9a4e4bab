"""Keras's files of every era, read and written without Keras.

`configs` knows what the JSON says, `stores` where the arrays are, `reading` puts both together,
`modern` carries whole models to the Keras of today, `writing` writes. Knows no other framework,
and never imports Keras: `live.keras` does. Start with `reading.load`.
"""
