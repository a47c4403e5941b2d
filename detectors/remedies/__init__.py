"""What helps: causes, the catalogue, credits, the choice among remedies, and what came of it."""
