"""`make bench-detection`: false pages and delays of the product's own detectors, beside the usual ones."""
