"""Pictures of jobs that run."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; no job has a picture yet."""
    op.add_column("jobs", sa.Column("picture", sa.LargeBinary()))
    op.add_column("jobs", sa.Column("preview", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    """Drop them, with the pictures."""
    op.drop_column("jobs", "preview")
    op.drop_column("jobs", "picture")
