"""One job as a batch of Dataproc Serverless: where it may run, how big, the request, the rules, the
client and its commands.
"""
