"""The hot loop and what it does with one call, for its elements and for its customer."""
