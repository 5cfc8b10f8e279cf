"""One job as a batch of Dataproc Serverless: size, request, progress and output."""
