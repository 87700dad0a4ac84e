"""Run by alembic: takes the steps over the connection that it is given, in its transaction."""

from alembic import context

from rayreel.serving.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
