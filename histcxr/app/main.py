"""The script that Streamlit runs for every visitor: the pages, of which one is shown."""

import streamlit as st

from histcxr.app import looking, training, triaging

st.set_page_config(page_title="histcxr", layout="wide")
pages = [
    st.Page(triaging.page, title="Triage", default=True),
    st.Page(training.page, title="Train", url_path="train"),
    st.Page(looking.explore_page, title="Explore", url_path="explore"),
    st.Page(looking.audit_page, title="Audit", url_path="audit"),
]
st.navigation(pages, position="top").run()
st.caption("Research software, not a medical device.")
