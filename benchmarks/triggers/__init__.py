"""How soon a trigger is named, how exactly, and how often one is named that is none: real data, real models, the real agent."""
