"""Transport: where bytes come from. A source never blocks, gives whole lines, and can say its position."""
