"""Networks of transformers that predict a set of masks, one for each learnt query."""
