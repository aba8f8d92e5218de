/* explorer.js - a button on a film's page in Orthanc Explorer. SPDX-License-Identifier: GPL-3.0-or-later */
$('#instance').live('pagecreate', function () {
  var button = $('<a>').attr('data-role', 'button').attr('href', '#').attr('data-icon', 'search')
    .attr('data-theme', 'e').text('radz: findings (research use only)').button();
  button.insertBefore($('#instance-delete').parent().parent());
  button.click(function () {
    if ($.mobile.pageData) window.open('../radz/app/index.html?instance=' + $.mobile.pageData.uuid);
    return false;
  });
});
