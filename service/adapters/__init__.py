"""Adapters as their users know them: what there is, what it rests on, what may be deleted, and other forms of it.

```
naming.py      who names an adapter: routes, evidence, jobs, ft: names      card.py       its README.md, pure
retention.py   which ones go, pure                                         facts.py      what the card says, gathered
registry.py    list, show, remove, prune                                   engines.py    what running engines have loaded
exporting.py   PEFT folder, merged weights, GGUF                           retesting.py  an export beside the adapter
```
"""
