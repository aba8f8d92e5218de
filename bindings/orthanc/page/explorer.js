/* explorer.js - a button on a film's page in Orthanc Explorer. SPDX-License-Identifier: GPL-3.0-or-later */
$('#instance').live('pagecreate', function () {
  var button = $('<a>').attr('data-role', 'button').attr('href', '#').attr('data-icon', 'search')
    .attr('data-theme', 'e').attr('id', 'radz-button').text('radz: AI findings').button();
  button.insertBefore($('#instance-delete').parent().parent());
  button.click(function () {
    if ($.mobile.pageData) window.open('../radz/app/index.html?instance=' + $.mobile.pageData.uuid);
    return false;
  });
});
