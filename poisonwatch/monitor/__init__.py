"""The pure machine of one model: micro-batches and labels go in, reports come out."""
