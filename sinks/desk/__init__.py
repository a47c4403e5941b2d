"""The CSR desk: the pages on which representatives find whom to call, and what to say."""
