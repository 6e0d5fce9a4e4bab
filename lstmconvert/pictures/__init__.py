"""Pictures of a model: a page to look at, cells of a notebook, a figure for a paper.

It knows a model and its numbers, and turns them into colours, sentences and HTML; it opens no file
and knows no framework. Start with `page.view`: it takes each cell through `survey` (one pass over
the weights, what each unit is like) and the cards of the page.
"""
