"""What an LSTM is: gates, cells, directions, layers, models, and their options.

Knows no file and no framework. Start with `gates`, then `layer`.
"""
