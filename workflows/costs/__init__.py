"""What batches cost: list prices, a batch before and after, a month, and the ledger."""
