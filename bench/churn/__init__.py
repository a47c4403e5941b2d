"""Who will leave, and what helps: churn tables streamed through the models, and a market where the truth is known."""
